"""Study files and requests, validated and expanded to the predictions, simulations and comparisons they ask for."""
