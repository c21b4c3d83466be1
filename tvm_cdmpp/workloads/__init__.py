"""What a workload key means: named functions, common operators, hashes, derivation."""
