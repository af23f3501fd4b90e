"""The local web app and REST: images, videos and cameras in, apparent expressions out."""
