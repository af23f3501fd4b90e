"""One file a run-time: each turns image crops into probabilities by one library, behind the protocol of `protocol.py`."""
