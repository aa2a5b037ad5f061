"""Folders of decoded images, mapped into memory: reading and writing."""
