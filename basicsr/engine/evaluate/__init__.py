"""Measuring data sets and writing reports."""
