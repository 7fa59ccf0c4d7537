"""The reference of everything that has a name, written from the registries."""
