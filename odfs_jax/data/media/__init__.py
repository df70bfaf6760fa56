"""Clips and pictures in and out. Nothing else knows PyAV."""
