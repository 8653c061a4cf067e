"""Work on items, from the reply of the model to the stored end."""
