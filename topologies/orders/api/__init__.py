"""The order API: HTTP around the command side. A handler reads a request, runs one transaction, answers.

    handlers -> shop (commands as transactions) -> placing, transitions -> database
                                                -> places: where the event came to lie in Kafka
    endpoints: what each takes and answers; the OpenAPI document is made of it      server: the process

It needs Kafka only to say where an event lies, and for what customers do (`POST /api/activity`): orders are taken while
the cluster is away, and published when it is back.
"""
