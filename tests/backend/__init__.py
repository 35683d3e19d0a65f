"""Tests of minicnn/backend."""
