"""One file a library: each turns crops into probabilities by it, behind the protocol of `protocol.py`."""
