"""Cooperating agents for EdgeX Foundry gateways: the library that every service shares.

Source: design and layout are described in ARCHITECTURE.md.
"""

__version__ = "0.1.0"
