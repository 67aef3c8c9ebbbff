"""The demo: a month of real flights through three processors, some of them broken, and the numbers that come out."""
