"""A shop in Flask, on a master and a lagging slave. `README.md` says where to start reading."""
