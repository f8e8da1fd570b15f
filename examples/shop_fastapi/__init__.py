"""A shop in FastAPI, on a master and a lagging slave. `README.md` says where to start reading."""
