"""Caffe, read without protobuf."""
