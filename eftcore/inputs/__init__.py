"""Inputs of users: types of the fields of specs, tables of numbers and their files, and limits of their size."""
