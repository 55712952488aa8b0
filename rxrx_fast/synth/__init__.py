"""A synthetic RxRx1 that anyone can generate."""
