"""Places in a master's replication stream, one module an engine.

Empty so far. Markers hold by time until an engine is here that can say whether a slave has a transaction.
"""
