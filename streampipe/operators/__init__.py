"""Pure columnar operators: columns in, columns out."""
