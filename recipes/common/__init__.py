"""What recipes share: the command line, run folders and records, and the sentences and features they write."""
