//! What `checkout` puts into a job: a private copy of the working tree, and git facts about it.
