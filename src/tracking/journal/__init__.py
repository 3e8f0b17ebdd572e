"""What is kept on disk before anything is sent, and how it is sent."""
