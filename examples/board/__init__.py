"""The message board. Start reading at `board.py`; `README.md` says what the other files are."""
