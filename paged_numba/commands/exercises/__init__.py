"""Commands of the exercises: begin one, check an answer, see what is done."""
