"""`batchgen view`: a local web page over the database, to watch, browse and steer.

This is the door: `serve`, and `facts_of` and `report_html`, of which `report` makes a
file. Behind it:

    report    a run as one file, drawn with the parts of the pages
    server    the application: the table of all routes, the port, start and end
    pages/    a module a page, with plain functions that make an answer of a request
    view      what a page is given
    frame     what each page is drawn in: navigation, language, the command that does the same
    guard     who may ask, and what each answer says to the browser: deny by default
    hiding    no secret leaves in a page
    reader    a thread of its own that reads the database
    tokens    the token in the link, and where it is kept
    language  the texts, English and Chinese: texts/ has a table for each page
    shown     how numbers, times and texts of others look
    assets    the style and the scripts, by name

Pages call functions of jobs/, the ones that the commands call, and the doors of the store. What
they show is in the URL, so that back, reload, bookmarks and many tabs work. Text from outside is
shown as text, and nothing that is stored is executed.
"""

from batchgen.web.report import MARK, facts_of, report_html
from batchgen.web.server import serve

__all__ = ["MARK", "facts_of", "report_html", "serve"]
