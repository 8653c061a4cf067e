"""The model's side: one request out, one reply in, and what it means.

server_address  where a server is and what goes with each request; the only one that knows openai
client          sends a request
connections     how it is sent: POSTs over connections that are kept alive
proxies         the proxy that the environment names
receive         the body of a reply, within bounds of memory
streams/        events of a stream, put together to the body that they stand for
time_limit      how long a call may take
faults          what is said where no whole answer came
replies         reads a reply: an answer, or a failure with its reason
error_replies   what an error means
vendor_words    what each vendor calls it
announcements   what a server announces in headers: waits and limits
rejections      finds the parameter that a server says it rejects
decide          what follows: done, try again and when, failed, or halt
prices          what calls cost, and the most that they can cost
public_prices   what vendors charge, by the list of the genai-prices package
"""
