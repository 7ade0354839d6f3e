"""Everything that touches a store, without Beam: volumes, tile lists, ledger, provenance."""
