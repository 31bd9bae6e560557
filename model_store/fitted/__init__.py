"""Anomaly detectors that are fitted to arrays in one go: principal components, nearest neighbours, Mahalanobis distance."""
