"""What can be done with a run once it is there: rebuild any of its states, export, predict, measure again."""
