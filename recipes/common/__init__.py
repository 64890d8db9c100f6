"""What recipes share: arguments and launching, run folders and records, sentences and features on disk."""
