"""The process in which a learner's file is examined, and what keeps the file from deciding on its own verdict."""
