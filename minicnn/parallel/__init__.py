"""More than one rank: the paper's two columns, data parallel, and "one weird trick".

    shares.py     who holds which rows and channels of an array
    comm.py       what ranks can do together; local.py (threads), mpi.py (processes) and nccl.py (processes with a GPU
                  each) carry it out
    transfer.py   the layer in which ranks meet: all-gather forward, reduce-scatter backward, and what lies between
    split.py      from a network to the part of one rank
    net.py        that part as a network: `columns(net, comm)`, `data(net, comm)`, `hybrid(net, comm)`
    ledger.py     what crossed, where, and how long it took
    launch.py     ranks as threads of this process, or as those that mpiexec has started
"""
