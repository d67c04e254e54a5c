"""How a gateway stands: facts that were gathered -> findings with their remedies. Pure; a module for each part.

`adapters/examination/` gathers the facts, `cli/doctor.py` shows the findings.

Source: issue 6, "Operations" and "Bad input".
"""
