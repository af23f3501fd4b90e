"""Pass or fail for a challenger: the rules, the verdict, and the promotion of a champion."""
