"""Cutting files that nobody has cut: by voice activity, by speech recognition, or into windows of equal length."""
