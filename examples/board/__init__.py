"""The message board. Start reading at `board.py`; `README.md` lists the other files."""
