"""Generated from proto/ by proto/generate.py; only `adapters/wire.py` imports it."""
