"""Card fields derived from a model's name: group, training source, family; one set of rules for both stages."""
