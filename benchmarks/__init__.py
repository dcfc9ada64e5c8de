"""What is measured. ``python -m benchmarks`` runs the short ones; ``python -m benchmarks NAME ...`` those named."""
