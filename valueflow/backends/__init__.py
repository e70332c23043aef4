"""Running a model: activations out, interventions in. Knows nothing of values or judges."""
