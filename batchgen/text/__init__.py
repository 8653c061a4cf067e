"""Text as it comes from files, and as it is stored, compared and exported.

json_text      UTF-8, and JSON on one line
foreign_json   what a server sent, of whose shape nothing is trusted
encoding       what is said of a file that is in another encoding
"""
