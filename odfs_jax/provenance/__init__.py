"""Marking what this program makes as edited by AI, and reading such marks (docs/provenance.md)."""
