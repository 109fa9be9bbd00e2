"""One file or folder for each published system; `policies/registry.py` has the list."""
