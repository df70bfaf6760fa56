"""Networks that find faces and their points: MTCNN, S3FD, FAN, regression trees."""
