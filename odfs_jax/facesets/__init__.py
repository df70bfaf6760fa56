"""Looking at a folder of aligned faces as a whole: summary, check, and one file to pass on."""
