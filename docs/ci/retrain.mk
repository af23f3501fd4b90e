# A Makefile target for a retraining job: `include docs/ci/retrain.mk`, then
# `make retrain SOURCE=fer2013.csv.gz AUDIT="--config fer2013"`.
# make itself exits 2 for any failure; where the exit code matters (3 failed, 5 inconclusive), call retrain.sh.
export SOURCE DATA AUDIT TRAIN GATE CHAMPIONS OUT

.PHONY: retrain
retrain: ## Convert, audit, train, evaluate, gate, export, verify
	sh $(dir $(lastword $(MAKEFILE_LIST)))retrain.sh
