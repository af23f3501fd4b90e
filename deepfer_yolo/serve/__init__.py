"""The local web app and REST: pictures, videos and cameras in, apparent expressions out."""
