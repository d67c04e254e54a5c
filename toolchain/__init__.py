"""What makes the models that gateways run; for a workstation, never part of what a gateway installs."""
