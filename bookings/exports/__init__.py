"""What people take out of BookIt: calendar files of lists, and sheets of a day for printing."""
