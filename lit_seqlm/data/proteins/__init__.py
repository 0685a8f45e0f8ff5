"""What is read of proteins: files, cleaning, structures, splits by homology."""
