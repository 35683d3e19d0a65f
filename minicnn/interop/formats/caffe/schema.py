"""The messages of Caffe (caffe.proto) as tables for wire.py and prototxt.py: what a network for inference needs."""

SHAPE = {1: ("dim", "ints")}
BLOB = {1: ("num", "int"), 2: ("channels", "int"), 3: ("height", "int"), 4: ("width", "int"), 5: ("data", "floats"),
        6: ("diff", "floats"), 7: ("shape", SHAPE), 8: ("double_data", "doubles")}
CONVOLUTION = {1: ("num_output", "int"), 2: ("bias_term", "int"), 3: ("pad", "ints"), 4: ("kernel_size", "ints"),
               5: ("group", "int"), 6: ("stride", "ints"), 9: ("pad_h", "int"), 10: ("pad_w", "int"),
               11: ("kernel_h", "int"), 12: ("kernel_w", "int"), 13: ("stride_h", "int"), 14: ("stride_w", "int"),
               16: ("axis", "int"), 18: ("dilation", "ints")}
POOLING = {1: ("pool", "int"), 2: ("kernel_size", "int"), 3: ("stride", "int"), 4: ("pad", "int"),
           5: ("kernel_h", "int"), 6: ("kernel_w", "int"), 7: ("stride_h", "int"), 8: ("stride_w", "int"),
           9: ("pad_h", "int"), 10: ("pad_w", "int"), 12: ("global_pooling", "int"), 13: ("round_mode", "int")}
LRN = {1: ("local_size", "int"), 2: ("alpha", "float"), 3: ("beta", "float"), 4: ("norm_region", "int"),
       5: ("k", "float")}
INNER_PRODUCT = {1: ("num_output", "int"), 2: ("bias_term", "int"), 5: ("axis", "int"), 6: ("transpose", "int")}
BATCH_NORM = {1: ("use_global_stats", "int"), 3: ("eps", "float")}
SCALE = {1: ("axis", "int"), 2: ("num_axes", "int"), 4: ("bias_term", "int")}
BIAS = {1: ("axis", "int"), 2: ("num_axes", "int")}
ELTWISE = {1: ("operation", "int"), 2: ("coeff", ["float"])}
CONCAT = {1: ("concat_dim", "int"), 2: ("axis", "int")}
SLICE = {1: ("slice_dim", "int"), 2: ("slice_point", "ints"), 3: ("axis", "int")}
DROPOUT, RELU = {1: ("dropout_ratio", "float")}, {1: ("negative_slope", "float")}
POWER = {1: ("power", "float"), 2: ("scale", "float"), 3: ("shift", "float")}
SOFTMAX, FLATTEN, RESHAPE = {2: ("axis", "int")}, {1: ("axis", "int"), 2: ("end_axis", "int")}, {1: ("shape", SHAPE)}
RULE = {1: ("phase", "int"), 2: ("min_level", "int"), 3: ("max_level", "int"), 4: ("stage", ["text"]),
        5: ("not_stage", ["text"])}
TRANSFORM = {1: ("scale", "float"), 2: ("mirror", "int"), 3: ("crop_size", "int"), 4: ("mean_file", "text"),
             5: ("mean_value", ["float"])}
INPUT = {1: ("shape", [SHAPE])}

LAYER = {1: ("name", "text"), 2: ("type", "text"), 3: ("bottom", ["text"]), 4: ("top", ["text"]), 7: ("blobs", [BLOB]),
         8: ("include", [RULE]), 9: ("exclude", [RULE]), 10: ("phase", "int"), 100: ("transform_param", TRANSFORM),
         104: ("concat_param", CONCAT), 106: ("convolution_param", CONVOLUTION), 108: ("dropout_param", DROPOUT),
         110: ("eltwise_param", ELTWISE), 117: ("inner_product_param", INNER_PRODUCT), 118: ("lrn_param", LRN),
         121: ("pooling_param", POOLING), 122: ("power_param", POWER), 123: ("relu_param", RELU),
         125: ("softmax_param", SOFTMAX), 126: ("slice_param", SLICE), 133: ("reshape_param", RESHAPE),
         135: ("flatten_param", FLATTEN), 139: ("batch_norm_param", BATCH_NORM), 141: ("bias_param", BIAS),
         142: ("scale_param", SCALE), 143: ("input_param", INPUT)}
V1_LAYER = {1: ("layer", "bytes"), 2: ("bottom", ["text"]), 3: ("top", ["text"]), 4: ("name", "text"),
            5: ("type", "int"), 6: ("blobs", [BLOB]), 9: ("concat_param", CONCAT),
            10: ("convolution_param", CONVOLUTION), 11: ("data_param", {}), 12: ("dropout_param", DROPOUT),
            17: ("inner_product_param", INNER_PRODUCT), 18: ("lrn_param", LRN), 19: ("pooling_param", POOLING),
            21: ("power_param", POWER), 24: ("eltwise_param", ELTWISE), 30: ("relu_param", RELU),
            31: ("slice_param", SLICE), 32: ("include", [RULE]), 33: ("exclude", [RULE]),
            36: ("transform_param", TRANSFORM), 39: ("softmax_param", SOFTMAX)}
NET = {1: ("name", "text"), 2: ("layers", [V1_LAYER]), 3: ("input", ["text"]), 4: ("input_dim", "ints"),
       8: ("input_shape", [SHAPE]), 100: ("layer", [LAYER])}

V1_TYPES = {1: "Accuracy", 3: "Concat", 4: "Convolution", 5: "Data", 6: "Dropout", 8: "Flatten", 12: "ImageData",
            14: "InnerProduct", 15: "LRN", 17: "Pooling", 18: "ReLU", 19: "Sigmoid", 20: "Softmax",
            21: "SoftmaxWithLoss", 22: "Split", 23: "TanH", 24: "WindowData", 25: "Eltwise", 26: "Power",
            29: "MemoryData", 33: "Slice", 36: "Silence", 39: "Deconvolution"}
ENUMS = {"phase": {"TRAIN": 0, "TEST": 1}, "pool": {"MAX": 0, "AVE": 1, "STOCHASTIC": 2},
         "norm_region": {"ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1}, "operation": {"PROD": 0, "SUM": 1, "MAX": 2},
         "round_mode": {"CEIL": 0, "FLOOR": 1},
         "type": {"ACCURACY": 1, "CONCAT": 3, "CONVOLUTION": 4, "DATA": 5, "DROPOUT": 6, "FLATTEN": 8, "IMAGE_DATA": 12,
                  "INNER_PRODUCT": 14, "LRN": 15, "POOLING": 17, "RELU": 18, "SIGMOID": 19, "SOFTMAX": 20,
                  "SOFTMAX_LOSS": 21, "SPLIT": 22, "TANH": 23, "WINDOW_DATA": 24, "ELTWISE": 25, "POWER": 26,
                  "MEMORY_DATA": 29, "SLICE": 33, "SILENCE": 36, "DECONVOLUTION": 39}}
